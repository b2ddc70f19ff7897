"""Power loss: the file operations of a run are recorded, and every disk state that a crash may leave is built and used.

`recording` reads what strace saw, `disk` models which operations survive a crash, `scenarios` are the runs and what is
done after the crash, `server` forks a process for each state, `verdict` evaluates it, `unread` says on which files no
outcome depends, `campaign` counts, `python -m` runs all of it.
"""
