"""A chip's own process: the code that runs in it (`child`), and the front's end (`supervisor`, `remote_model`)."""
