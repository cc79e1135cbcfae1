"""The disk and the machine: DICOM reading, tables with provenance, atomic writes, processes, logging."""
