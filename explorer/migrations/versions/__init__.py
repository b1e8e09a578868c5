"""One module a revision: rNNNN_what_it_adds.py."""
