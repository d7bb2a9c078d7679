"""A prepared data set: its files, its catalog and its sessions, mapped into memory."""
