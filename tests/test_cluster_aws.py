"""cluster.yaml and its roles on moto's stand-in for AWS, through Ray's own code of the cluster launcher."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.test_cluster_files import AWS, ROOT, TYPES, WORKERS

pytestmark = pytest.mark.slow

REGION = AWS["provider"]["region"]


def refuse(*_: object) -> None:
    raise AssertionError("the test would have left this machine")


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An account with a default network, and with the roles of deploy/aws-roles.yaml."""
    import boto3
    from moto import mock_aws
    from ray.autoscaler._private.aws import config as ray_aws
    from ray.autoscaler._private.aws import utils

    caches = (utils.resource_cache, utils.client_cache, ray_aws._get_subnets_or_die)
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL"):
            patch.delenv(name, raising=False)
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))  # Ray writes a key below it
        patch.setattr(socket.socket, "connect", refuse)
        for cache in caches:
            cache.cache_clear()
        boto3.client("cloudformation", REGION).create_stack(
            StackName="hfray",
            TemplateBody=(ROOT / "deploy" / "aws-roles.yaml").read_text("utf-8"),
            Parameters=[{"ParameterKey": "Bucket", "ParameterValue": "my-data"}],
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )
        yield
        for cache in caches:
            cache.cache_clear()


@pytest.fixture(scope="module")
def config(stand_in: None) -> dict[str, Any]:
    """What `ray up` makes of the file before it starts a node."""
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = AWSNodeProvider.fillout_available_node_types_resources(prepare_config(AWS))
    validate_config(prepared)
    made: dict[str, Any] = AWSNodeProvider.bootstrap_config(prepared)
    return made


def statements(role: str) -> list[dict[str, Any]]:
    """What a role may do, one action each."""
    import boto3

    iam = boto3.resource("iam", REGION)
    found = [each.policy_document for each in iam.Role(role).policies.all()]
    found += [each.default_version.document for each in iam.Role(role).attached_policies.all()]
    documents = [yaml.safe_load(each) if isinstance(each, str) else each for each in found]  # JSON, or Python's repr
    return [
        {**statement, "Action": action}
        for document in documents
        for statement in document["Statement"]
        for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
    ]


def test_nothing_but_ssh_is_open_to_the_outside(config: dict[str, Any]) -> None:
    import boto3

    groups = {
        group for each in config["available_node_types"].values() for group in each["node_config"]["SecurityGroupIds"]
    }
    (group_id,) = groups
    group = boto3.resource("ec2", REGION).SecurityGroup(group_id)
    assert group.group_name == AWS["provider"]["security_group"]["GroupName"]
    from_members = [rule for rule in group.ip_permissions if rule["UserIdGroupPairs"]]
    assert [rule["IpProtocol"] for rule in from_members] == ["-1"]
    assert [pair["GroupId"] for rule in from_members for pair in rule["UserIdGroupPairs"]] == [group_id]
    outside = [rule for rule in group.ip_permissions if rule["IpRanges"] or rule["Ipv6Ranges"] or rule["PrefixListIds"]]
    assert [(rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) for rule in outside] == [("tcp", 22, 22)]


def test_every_type_has_what_a_node_needs(config: dict[str, Any]) -> None:
    import boto3

    profiles = {each.name for each in boto3.resource("iam", REGION).instance_profiles.all()}
    key = Path(config["auth"]["ssh_private_key"])
    assert key.stat().st_mode & 0o777 == 0o600
    for name, each in config["available_node_types"].items():
        node = each["node_config"]
        assert node["InstanceType"] == TYPES[name]["node_config"]["InstanceType"]
        assert node["ImageId"].startswith("resolve:ssm:/aws/service/deeplearning/ami/x86_64/base-")
        assert (node["KeyName"], bool(node["SubnetIds"])) == (key.stem, True)
        assert node["IamInstanceProfile"]["Name"] in profiles
    assert TYPES["head"]["node_config"]["IamInstanceProfile"] != WORKERS["cpu"]["node_config"]["IamInstanceProfile"]


def test_ray_counts_what_the_machines_have(config: dict[str, Any]) -> None:
    resources = {name: each["resources"] for name, each in config["available_node_types"].items()}
    assert resources["head"] == {"CPU": 0, "GPU": 0}
    assert resources["cpu"]["CPU"] >= 8
    assert "GPU" not in resources["cpu"]
    for name in ("gpu", "gpu-spot"):
        assert resources[name]["GPU"] >= 1
        assert resources[name]["accelerator_type:L4"] == 1


@pytest.mark.parametrize("name", TYPES)
def test_a_node_is_started_as_the_file_says_and_terminated(config: dict[str, Any], name: str) -> None:
    import boto3
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler.tags import TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE

    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    node_config = config["available_node_types"][name]["node_config"]
    tags = {TAG_RAY_NODE_KIND: "head" if name == "head" else "worker", TAG_RAY_USER_NODE_TYPE: name}
    (node,) = provider.create_node(node_config, tags, 1)
    assert provider.non_terminated_nodes(tags) == [node]
    ec2 = boto3.client("ec2", REGION)
    (made,) = ec2.describe_instances(InstanceIds=[node])["Reservations"][0]["Instances"]
    shown = {each["Key"]: each["Value"] for each in made["Tags"]}
    assert shown == {**tags, "ray-cluster-name": AWS["cluster_name"]}
    market = TYPES[name]["labels"]["ray.io/market-type"]
    assert made.get("InstanceLifecycle", "on-demand") == market
    assert made["InstanceType"] == node_config["InstanceType"]
    assert made["IamInstanceProfile"]["Arn"].endswith(f"/{node_config['IamInstanceProfile']['Name']}")
    assert [group["GroupId"] for group in made["SecurityGroups"]] == node_config["SecurityGroupIds"]
    assert made["MetadataOptions"]["HttpTokens"] == "required"
    (disk,) = made["BlockDeviceMappings"]
    assert (disk["DeviceName"], disk["Ebs"]["DeleteOnTermination"]) == (made["RootDeviceName"], True)
    assert ec2.describe_volumes(VolumeIds=[disk["Ebs"]["VolumeId"]])["Volumes"][0]["Encrypted"]
    provider.terminate_node(node)  # as the autoscaler does with an idle one
    (ended,) = ec2.describe_instances(InstanceIds=[node])["Reservations"][0]["Instances"]
    assert ended["State"]["Name"] == "terminated"


def test_a_role_may_do_its_part_only(stand_in: None) -> None:
    worker, head = statements("hfray-worker"), statements("hfray-head")
    assert all(each["Effect"] == "Allow" and not each["Action"].endswith(":*") for each in [*worker, *head])
    assert {each["Resource"] for each in worker} == {"arn:aws:s3:::my-data", "arn:aws:s3:::my-data/*"}
    assert {each["Action"].partition(":")[0] for each in worker} == {"s3"}
    assert all(each in head for each in worker)
    (passed,) = [each["Resource"] for each in head if each["Action"] == "iam:PassRole"]
    assert passed.endswith(":role/hfray-worker")
    (ends,) = [each for each in head if each["Action"] == "ec2:TerminateInstances"]
    assert ends["Condition"] == {"StringEquals": {"ec2:ResourceTag/ray-cluster-name": AWS["cluster_name"]}}
