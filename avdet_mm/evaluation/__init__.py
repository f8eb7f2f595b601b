"""How results are measured.

``functional`` holds plain functions, ``metrics`` the registered metrics.
Nothing is imported here, so that models may use the functions.
"""
