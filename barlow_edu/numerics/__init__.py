"""Arithmetic, exact and fast, with no opinion: correlation, pixels, processes, batch norm, threads, devices."""

from multiprocessing import parent_process

from barlow_edu.numerics.threads import wait_asleep

if parent_process() is None:  # what decodes images for this process computes with one thread
    wait_asleep()
