# The roles of ../policies, as ../iam.json makes them with CloudFormation.

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}

variable "region" {
  description = "Region of the functions and streams that the roles may use"
  type        = string
}

locals {
  names = {
    partition  = data.aws_partition.current.partition
    region     = var.region
    account_id = data.aws_caller_identity.current.account_id
  }
}

resource "aws_iam_role" "instance" {
  name               = "awslambda-instance"
  assume_role_policy = templatefile("${path.module}/../policies/instance-trust.json", local.names)
}

resource "aws_iam_role_policy" "instance" {
  name   = "awslambda"
  role   = aws_iam_role.instance.id
  policy = templatefile("${path.module}/../policies/instance.json", local.names)
}

resource "aws_iam_instance_profile" "instance" {
  name = "awslambda-instance"
  role = aws_iam_role.instance.name
}

resource "aws_iam_role" "reports" {
  name               = "awslambda-reports"
  assume_role_policy = templatefile("${path.module}/../policies/reports-trust.json", local.names)
  depends_on         = [aws_iam_role.instance]
}

resource "aws_iam_role_policy" "reports" {
  name   = "awslambda"
  role   = aws_iam_role.reports.id
  policy = templatefile("${path.module}/../policies/reports.json", local.names)
}

output "instance_profile_name" {
  value = aws_iam_instance_profile.instance.name
}

output "reports_role_arn" {
  value = aws_iam_role.reports.arn
}
