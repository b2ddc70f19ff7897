"""Raw maps and targets -> a named dict of losses.

assignment says which cells answer for which object; detection makes the losses; weights are kept apart.
"""
