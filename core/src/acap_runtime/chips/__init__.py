"""The front's end of chips: processes, queues, calls."""
