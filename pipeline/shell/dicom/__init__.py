"""DICOM files: headers, pixels and their guarded decoding, writing."""
