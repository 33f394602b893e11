"""Bytes in an object store that speaks S3: pieces named by file, fence and offset, and one object of each whole file.

Needs the libraries of the extra `s3`; obstore moves bytes, boto3 does the few calls that it hides.
"""
