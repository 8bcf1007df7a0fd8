"""Everything that knows IPython: the extension, the magics, what cells show, where actors' output goes."""
