"""From a notebook to a module: its actors, and exactly what they need.

Two front doors, one analysis. `cells` reads a file or takes what a session has run; `ipython_syntax` makes
plain Python of it, `statements` splits that into pieces with the names that each binds and (`scopes`) reads.
`selection` takes the actors and everything they lead to, or refuses (`refusals`); `imports` and `block` write
the text, `writing` puts it into the file, `trial` imports it in a fresh interpreter. Nothing here runs the
notebook's code, and nothing needs IPython.
"""
