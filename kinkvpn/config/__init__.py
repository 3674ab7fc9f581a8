"""The daemon's configuration: a module for each section of the file, and what they make together."""

from kinkvpn.config.clear import Block, ClearSettings, Known
from kinkvpn.config.configuration import DEFAULT_PATH, Configuration, load, parse
from kinkvpn.config.control import ControlSettings, GroupMay
from kinkvpn.config.dns import DnsSettings
from kinkvpn.config.esp import (
    ESP_PORT,
    MAXIMUM_QUEUES,
    CipherLibrary,
    EngineChoice,
    EngineSettings,
    EspSettings,
    engine_settings,
    read_engine,
)
from kinkvpn.config.hooks import HookSettings
from kinkvpn.config.host import HostSettings
from kinkvpn.config.kink import KINK_PORT, KinkSettings
from kinkvpn.config.log import LogFormat, LogLevel, LogSettings
from kinkvpn.config.metrics import Listen, MetricsSettings
from kinkvpn.config.offload import Switch, read_offload
from kinkvpn.config.peer import PeerConfiguration
from kinkvpn.config.people import PeopleSettings
from kinkvpn.config.tun import IPV4_MINIMUM_MTU, IPV6_MINIMUM_MTU, MAXIMUM_MTU, DeviceKind, TunSettings, read_tun

__all__ = [
    "DEFAULT_PATH",
    "ESP_PORT",
    "IPV4_MINIMUM_MTU",
    "IPV6_MINIMUM_MTU",
    "KINK_PORT",
    "MAXIMUM_MTU",
    "MAXIMUM_QUEUES",
    "Block",
    "CipherLibrary",
    "ClearSettings",
    "Configuration",
    "DeviceKind",
    "ControlSettings",
    "GroupMay",
    "DnsSettings",
    "EngineChoice",
    "EngineSettings",
    "EspSettings",
    "HookSettings",
    "HostSettings",
    "KinkSettings",
    "Known",
    "Listen",
    "LogFormat",
    "LogLevel",
    "LogSettings",
    "MetricsSettings",
    "PeerConfiguration",
    "PeopleSettings",
    "Switch",
    "TunSettings",
    "engine_settings",
    "load",
    "parse",
    "read_engine",
    "read_offload",
    "read_tun",
]
