"""The classes that plugins implement: one module for each kind of plugin, and the code that they share."""
