from tests.s3_stand_in import s3, s3_endpoint

__all__ = ["s3", "s3_endpoint"]
