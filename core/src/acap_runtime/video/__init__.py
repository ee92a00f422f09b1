"""The front's end of cameras: captures and streams."""
