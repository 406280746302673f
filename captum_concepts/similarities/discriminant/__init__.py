"""The similarity ``discriminant``: concepts in Fisher's discriminant space."""

__all__: list[str] = []
