# Who may speak to whom. The groups of all layers are here, so that a layer's rules need no other layer to be there.

resource "aws_security_group" "layer" {
  for_each = local.layers

  name        = "${local.name}-${each.key}"
  description = "Tasks of the ${each.key}"
  vpc_id      = aws_vpc.this.id

  tags = { Name = "${local.name}-${each.key}" }
}

resource "aws_security_group" "log" {
  name        = "${local.name}-log"
  description = "Kafka brokers"
  vpc_id      = aws_vpc.this.id

  tags = { Name = "${local.name}-log" }
}

resource "aws_security_group" "endpoints" {
  name        = "${local.name}-endpoints"
  description = "Endpoints of AWS services"
  vpc_id      = aws_vpc.this.id

  tags = { Name = "${local.name}-endpoints" }
}

# The serving layer asks the two others. Nobody asks it but the load balancer, whose rule is the serving layer's own.
resource "aws_vpc_security_group_ingress_rule" "serving" {
  for_each = setsubtract(local.layers, ["serving-layer"])

  security_group_id            = aws_security_group.layer[each.key].id
  referenced_security_group_id = aws_security_group.layer["serving-layer"].id
  description                  = "Requests of the serving layer"
  ip_protocol                  = "tcp"
  from_port                    = local.ports[each.key]
  to_port                      = local.ports[each.key]
}

resource "aws_vpc_security_group_ingress_rule" "log" {
  for_each = local.layers

  security_group_id            = aws_security_group.log.id
  referenced_security_group_id = aws_security_group.layer[each.key].id
  description                  = "Kafka over TLS with SCRAM, from the ${each.key}"
  ip_protocol                  = "tcp"
  from_port                    = 9096
  to_port                      = 9096
}

resource "aws_vpc_security_group_ingress_rule" "endpoints" {
  for_each = local.layers

  security_group_id            = aws_security_group.endpoints.id
  referenced_security_group_id = aws_security_group.layer[each.key].id
  description                  = "HTTPS from the ${each.key}"
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
}

resource "aws_vpc_security_group_egress_rule" "layer" {
  for_each = local.layers

  security_group_id = aws_security_group.layer[each.key].id
  description       = "Anywhere: where that leads is for the routes to say"
  ip_protocol       = "-1"
  cidr_ipv4         = "0.0.0.0/0"
}
