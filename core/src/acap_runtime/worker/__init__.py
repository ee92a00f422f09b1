"""A chip's own process: what runs in it (`child`), and the front's end of it (`supervisor`, `remote_model`)."""
