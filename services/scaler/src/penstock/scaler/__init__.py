"""How many instances should there be, and of which kind?"""
