"""What does the model say?"""
