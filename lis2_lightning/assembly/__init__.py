"""Documented keys become Lightning objects: the only room where the others meet."""
