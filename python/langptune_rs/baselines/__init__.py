"""Every method of the comparison, one file each, behind one interface; `registry` lists them by name."""
