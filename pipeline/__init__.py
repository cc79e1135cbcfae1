"""Intracranial hemorrhage on head CT, from DICOM slices to a scored submission: one module a stage."""
