# Three tasks at least, on the Internet.
environment     = "production"
image_tag       = "0.1.0"
certificate_arn = "arn:aws:acm:eu-west-1:123456789012:certificate/11111111-2222-3333-4444-555555555555"
cpu             = 4096
memory_mib      = 16384
tasks           = { minimum = 3, maximum = 12 }
