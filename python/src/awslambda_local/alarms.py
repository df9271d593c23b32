"""CloudWatch alarms that go off: moto keeps them, and nobody looks. Here each PutMetricData does.

An alarm of one metric and a plain statistic is looked at over its newest EvaluationPeriods that have data: when
DatapointsToAlarm of them breach its threshold it goes to ALARM, else to OK, and tells the SNS topics of that state.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-evaluation.html
"""

from __future__ import annotations

import json
import operator
from datetime import datetime, timedelta, timezone
from typing import Any

from moto.cloudwatch.models import Alarm, CloudWatchBackend
from moto.sns.models import sns_backends

MORE = 10  # periods that are looked back beyond EvaluationPeriods, for those that have no data

_BREACHES = {
    "GreaterThanThreshold": operator.gt,
    "GreaterThanOrEqualToThreshold": operator.ge,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}


def connect_alarms() -> None:
    """From now on, data of a metric moves its alarms."""
    put_metric_data = CloudWatchBackend.put_metric_data

    def put_and_look(backend: CloudWatchBackend, namespace: str, metric_data: list[dict[str, Any]]) -> None:
        put_metric_data(backend, namespace, metric_data)
        named = {metric["MetricName"] for metric in metric_data}
        for alarm in list(backend.alarms.values()):
            if alarm.namespace == namespace and alarm.metric_name in named and alarm.statistic:
                _look(backend, alarm)

    CloudWatchBackend.put_metric_data = put_and_look  # type: ignore[method-assign,assignment]


def _look(backend: CloudWatchBackend, alarm: Alarm) -> None:
    period, wanted = int(alarm.period), int(alarm.evaluation_periods)
    end = datetime.now(timezone.utc).replace(tzinfo=None, microsecond=0) + timedelta(seconds=1)
    dimensions = [{"Name": str(one.name), "Value": str(one.value)} for one in alarm.dimensions]
    points = backend.get_metric_statistics(
        alarm.namespace, alarm.metric_name, end - timedelta(seconds=period * (wanted + MORE)), end, period,
        [alarm.statistic], dimensions, alarm.unit,
    )[-wanted:]  # fmt: skip
    values = [float(point.get_statistics_for_type(alarm.statistic) or 0) for point in points]
    breaches = _BREACHES[alarm.comparison_operator]
    breaching = sum(breaches(value, float(alarm.threshold)) for value in values)
    state = "ALARM" if breaching >= int(alarm.datapoints_to_alarm or wanted) else "OK"
    if values and state != alarm.state_value:
        before = alarm.state_value
        reason = (
            f"Threshold Crossed: {breaching} of the last {len(values)} datapoints {values} breach {alarm.threshold}."
        )
        alarm.update_state(reason, "{}", state)
        _tell(backend, alarm, before)


def _tell(backend: CloudWatchBackend, alarm: Alarm, before: str) -> None:
    actions = alarm.alarm_actions if alarm.state_value == "ALARM" else alarm.ok_actions
    message = {
        "AlarmName": alarm.name, "AWSAccountId": backend.account_id, "AlarmArn": alarm.alarm_arn,
        "NewStateValue": alarm.state_value, "OldStateValue": before, "NewStateReason": alarm.state_reason,
        "Trigger": {"Namespace": alarm.namespace, "MetricName": alarm.metric_name, "Threshold": alarm.threshold},
    }  # fmt: skip
    for arn in (actions or []) if alarm.actions_enabled else []:
        if arn.split(":")[2] == "sns":
            subject = f'{alarm.state_value}: "{alarm.name}" in {backend.region_name}'
            sns_backends[backend.account_id][arn.split(":")[3]].publish(json.dumps(message), arn, subject=subject[:100])
