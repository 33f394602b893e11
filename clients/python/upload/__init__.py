"""Client of upload-service: uploads, watches and cancels over the generated stubs in ``upload.v1``."""
