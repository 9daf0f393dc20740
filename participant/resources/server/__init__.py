"""What the SQL servers share: tables as data, operations as steps that name no dialect, and reasons in one wording.

A resource in front of a server reads its catalog into `catalog.Catalog`, makes plans with `planning.plan`, and writes
each of the plan's steps in its own SQL. What the end of a branch means is in `resource.ServerResource`. Nothing here
speaks to a server.

With SQLite's resource they share what operations name (`targets.py`), and no locks: there every lock that a constraint
needs is Troth's own, here the server has them.
"""
