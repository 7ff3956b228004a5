"""Close the batch now, or wait? Who goes first?"""
