"""Looks at trained networks; nothing here changes one."""
