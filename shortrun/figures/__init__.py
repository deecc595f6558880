"""Pictures: strips and grids of images (`images`), charts (`charts`), in one look.

The charts need matplotlib, which takes a second to import: nothing here imports them unasked.
"""
