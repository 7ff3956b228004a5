"""What happened, what did it cost, is it normal?"""
