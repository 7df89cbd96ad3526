# The API over HTTPS. Behind the load balancer it is TLS again, with the layers' own certificate, where the foundation
# has one.

locals {
  name = "lamina-${var.environment}-api"
}

resource "aws_security_group" "api" {
  name        = local.name
  description = "Load balancer of the API"
  vpc_id      = local.foundation.network.vpc_id

  tags = { Name = local.name }
}

resource "aws_vpc_security_group_ingress_rule" "client" {
  for_each = { for pair in setproduct([80, 443], var.client_cidrs) : "${pair[0]} ${pair[1]}" => { port = pair[0], cidr = pair[1] } }

  security_group_id = aws_security_group.api.id
  description       = each.value.port == 80 ? "HTTP, to be sent on to HTTPS" : "HTTPS"
  ip_protocol       = "tcp"
  from_port         = each.value.port
  to_port           = each.value.port
  cidr_ipv4         = each.value.cidr
}

resource "aws_vpc_security_group_egress_rule" "tasks" {
  security_group_id            = aws_security_group.api.id
  referenced_security_group_id = local.foundation["serving-layer"].security_group_id
  description                  = "Tasks of the serving layer"
  ip_protocol                  = "tcp"
  from_port                    = local.port
  to_port                      = local.port
}

resource "aws_vpc_security_group_ingress_rule" "tasks" {
  security_group_id            = local.foundation["serving-layer"].security_group_id
  referenced_security_group_id = aws_security_group.api.id
  description                  = "Requests of clients"
  ip_protocol                  = "tcp"
  from_port                    = local.port
  to_port                      = local.port
}

resource "aws_lb" "api" {
  name                       = local.name
  internal                   = var.internal
  load_balancer_type         = "application"
  security_groups            = [aws_security_group.api.id]
  subnets                    = var.internal ? local.foundation.network.private_subnets : local.foundation.network.public_subnets
  drop_invalid_header_fields = true
  enable_deletion_protection = var.protect
  # Longer than a query may take: its time (`serving.limits.time`, five minutes), beside what it waits for an owner.
  idle_timeout = 360
}

resource "aws_lb_target_group" "this" {
  # A change that needs a new group makes it before the old one goes, so it cannot have a fixed name.
  name_prefix          = "lamina"
  port                 = local.port
  protocol             = upper(local.scheme)
  target_type          = "ip"
  vpc_id               = local.foundation.network.vpc_id
  deregistration_delay = 60

  # By `/healthz`, never by `/readyz`: that is 503 at all tasks alike while a head stands still, and answers are exact all
  # the same. A task listens only once it has its catalog and the log, and answers what it can from then on.
  health_check {
    path                = "/healthz"
    protocol            = upper(local.scheme)
    matcher             = "200"
    interval            = 30
    timeout             = 10
    healthy_threshold   = 2
    unhealthy_threshold = 10
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_lb_listener" "https" {
  load_balancer_arn = aws_lb.api.arn
  port              = 443
  protocol          = "HTTPS"
  ssl_policy        = var.tls_policy
  certificate_arn   = var.certificate_arn

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.this.arn
  }
}

resource "aws_lb_listener" "http" {
  load_balancer_arn = aws_lb.api.arn
  port              = 80
  protocol          = "HTTP"

  default_action {
    type = "redirect"

    redirect {
      port        = "443"
      protocol    = "HTTPS"
      status_code = "HTTP_301"
    }
  }
}
