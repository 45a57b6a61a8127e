"""The S3 gateway: S3's requests in, S3's answers out, over `stook.renter.objects`."""
