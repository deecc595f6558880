"""The commands, a file each: parse, build, call, print."""
