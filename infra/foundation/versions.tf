terraform {
  # Ephemeral values and write-only arguments, which keep passwords out of the state, came with 1.11.
  required_version = ">= 1.11.0, < 2.0.0"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.100"
    }
  }

  # Bucket, key and region come with `terraform init -backend-config=…`: each environment has its own.
  backend "s3" {}
}

provider "aws" {
  region = var.region

  default_tags {
    tags = merge({ project = "lamina", environment = var.environment, layer = "foundation" }, var.tags)
  }
}
