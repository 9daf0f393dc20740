"""A seeded simulator of the shipped nodes, logs and SQLite resource: a second driver, with virtual time.

One seed is one run: `scenario.py` draws from it what will be asked of the cluster and what will go wrong; `world.py`
drives the very `Coordinator` and `Participant` that the processes run, over their very logs in memory; `simulation.py`
lets time pass and a network, disks, clocks and people do what they may do to a cluster; `checks/` says at every step,
and once all has healed, whether the rules of DESIGN section 3 held. `runs.py` runs many seeds, and makes a
failing one small.

Not simulated: gRPC, threads, the writer's timing and SQLite's own recovery; these are tested on real processes.
"""
