"""Every method of the comparison, one file each, behind one interface; `registry` has them by name."""
