"""`forebay plan`: how many cameras fit on a machine, by simulation from measured costs."""
