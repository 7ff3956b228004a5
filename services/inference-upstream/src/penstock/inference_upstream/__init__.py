"""What does the hosted model say?"""
