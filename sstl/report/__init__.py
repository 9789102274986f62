"""Reports: evaluation, plots, the page, and the jobs that end in one."""
