"""The projects are copied and run, and hold no tests of this suite."""

collect_ignore = ["projects"]
