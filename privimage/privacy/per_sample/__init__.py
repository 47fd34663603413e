"""The gradient of each image alone, from one pass over many.

``layers`` knows, for each supported layer, the weight gradient of one image; ``capture`` collects them from a model.
"""
