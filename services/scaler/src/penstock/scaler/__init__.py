"""The scaler: how many instances should there be, and of which kind?"""
