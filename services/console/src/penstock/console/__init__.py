"""What is going on, at a glance?"""
