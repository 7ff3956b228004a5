"""May this caller spend this now?"""
