"""The DARTS cell space (Liu, Simonyan, Yang, ICLR 2019) with a multiplier on every edge."""
