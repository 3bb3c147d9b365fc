"""Launch training jobs on other machines, from the arguments of `apps/train`."""
