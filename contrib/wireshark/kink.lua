-- Wireshark dissector for KINK as it became: RFC 4430, on UDP port 910, and on port 4500 behind the non-ESP marker.
--
-- Wireshark has one of its own ("kink"), written from a draft of 2003: it knows other payload numbers, no KINK_ENCRYPT
-- as it is now, and nothing on port 4500. This one takes over both places and leaves ESP, IKE and keepalives on 4500 to
-- those who had them.
--
-- Install: copy it to the folder that Help > About > Folders calls "Personal Lua Plugins", or
--     tshark -X lua_script:kink.lua -r wire.pcap
-- What is inside KINK_ENCRYPT stays closed here: `kinkvpn decode` opens it with a keytab.

local kink = Proto("kink4430", "Kerberized Internet Negotiation of Keys (RFC 4430)")

-- BEGIN TABLES: written by tables.py from the tables of kinkvpn.wire; do not edit by hand.
local message_types = {
    [1] = "CREATE",
    [2] = "DELETE",
    [3] = "REPLY",
    [4] = "GETTGT",
    [5] = "ACK",
    [6] = "STATUS",
}
local payload_types = {
    [0] = "KINK_DONE",
    [1] = "KINK_AP_REQ",
    [2] = "KINK_AP_REP",
    [3] = "KINK_KRB_ERROR",
    [4] = "KINK_TGT_REQ",
    [5] = "KINK_TGT_REP",
    [6] = "KINK_ISAKMP",
    [7] = "KINK_ENCRYPT",
    [8] = "KINK_ERROR",
}
local error_codes = {
    [0] = "KINK_OK",
    [1] = "KINK_PROTOERR",
    [2] = "KINK_INVDOI",
    [3] = "KINK_INVMAJ",
    [4] = "KINK_INVMIN",
    [5] = "KINK_INTERR",
    [6] = "KINK_BADQMVERS",
    [7] = "KINK_U2UDENIED",
}
local quick_mode_types = {
    [0] = "NONE",
    [1] = "SA",
    [2] = "PROPOSAL",
    [3] = "TRANSFORM",
    [4] = "KE",
    [5] = "ID",
    [6] = "CERT",
    [7] = "CR",
    [8] = "HASH",
    [9] = "SIG",
    [10] = "NONCE",
    [11] = "NOTIFY",
    [12] = "DELETE",
    [13] = "VENDOR_ID",
    [20] = "NAT_D",
    [21] = "NAT_OA",
}
local protocols = {
    [1] = "ISAKMP",
    [2] = "AH",
    [3] = "ESP",
    [4] = "IPCOMP",
}
local esp_transforms = {
    [1] = "DES_IV64",
    [2] = "DES",
    [3] = "TRIPLE_DES",
    [4] = "RC5",
    [5] = "IDEA",
    [6] = "CAST",
    [7] = "BLOWFISH",
    [8] = "TRIPLE_IDEA",
    [9] = "DES_IV32",
    [10] = "RC4",
    [11] = "NULL",
    [12] = "AES_CBC",
    [13] = "AES_CTR",
    [14] = "AES_CCM_8",
    [15] = "AES_CCM_12",
    [16] = "AES_CCM_16",
    [18] = "AES_GCM_8",
    [19] = "AES_GCM_12",
    [20] = "AES_GCM_16",
    [21] = "SEED_CBC",
    [22] = "CAMELLIA",
    [23] = "NULL_AUTH_AES_GMAC",
    [249] = "CHACHA20_POLY1305_PRIVATE",
}
local ah_transforms = {
    [2] = "MD5",
    [3] = "SHA",
    [4] = "DES",
    [5] = "SHA2_256",
    [6] = "SHA2_384",
    [7] = "SHA2_512",
    [8] = "RIPEMD",
    [9] = "AES_XCBC_MAC",
    [10] = "RSA",
    [11] = "AES_128_GMAC",
    [12] = "AES_192_GMAC",
    [13] = "AES_256_GMAC",
}
local sa_attributes = {
    [1] = "LIFE_TYPE",
    [2] = "LIFE_DURATION",
    [3] = "GROUP_DESCRIPTION",
    [4] = "ENCAPSULATION_MODE",
    [5] = "AUTHENTICATION_ALGORITHM",
    [6] = "KEY_LENGTH",
    [7] = "KEY_ROUNDS",
    [8] = "COMPRESS_DICTIONARY_SIZE",
    [9] = "COMPRESS_PRIVATE_ALGORITHM",
    [10] = "ECN_TUNNEL",
    [11] = "EXTENDED_SEQUENCE_NUMBER",
}
local groups = {
    [14] = "MODP_2048",
    [15] = "MODP_3072",
    [16] = "MODP_4096",
    [17] = "MODP_6144",
    [18] = "MODP_8192",
    [19] = "ECP_256",
    [20] = "ECP_384",
    [21] = "ECP_521",
    [31] = "CURVE25519",
    [32] = "CURVE448",
}
local encapsulation_modes = {
    [1] = "TUNNEL",
    [2] = "TRANSPORT",
    [3] = "UDP_TUNNEL",
    [4] = "UDP_TRANSPORT",
    [61443] = "UDP_TUNNEL_DRAFT",
    [61444] = "UDP_TRANSPORT_DRAFT",
}
local authentication_algorithms = {
    [1] = "HMAC_MD5",
    [2] = "HMAC_SHA",
    [3] = "DES_MAC",
    [4] = "KPDK",
    [5] = "HMAC_SHA2_256",
    [6] = "HMAC_SHA2_384",
    [7] = "HMAC_SHA2_512",
    [8] = "HMAC_RIPEMD",
    [9] = "AES_XCBC_MAC",
    [10] = "SIG_RSA",
    [11] = "AES_128_GMAC",
    [12] = "AES_192_GMAC",
    [13] = "AES_256_GMAC",
}
local life_types = {
    [1] = "SECONDS",
    [2] = "KILOBYTES",
}
local id_types = {
    [1] = "IPV4_ADDR",
    [4] = "IPV4_ADDR_SUBNET",
    [5] = "IPV6_ADDR",
    [6] = "IPV6_ADDR_SUBNET",
    [7] = "IPV4_ADDR_RANGE",
    [8] = "IPV6_ADDR_RANGE",
}
local notify_types = {
    [1] = "INVALID_PAYLOAD_TYPE",
    [2] = "DOI_NOT_SUPPORTED",
    [3] = "SITUATION_NOT_SUPPORTED",
    [4] = "INVALID_COOKIE",
    [5] = "INVALID_MAJOR_VERSION",
    [6] = "INVALID_MINOR_VERSION",
    [7] = "INVALID_EXCHANGE_TYPE",
    [8] = "INVALID_FLAGS",
    [9] = "INVALID_MESSAGE_ID",
    [10] = "INVALID_PROTOCOL_ID",
    [11] = "INVALID_SPI",
    [12] = "INVALID_TRANSFORM_ID",
    [13] = "ATTRIBUTES_NOT_SUPPORTED",
    [14] = "NO_PROPOSAL_CHOSEN",
    [15] = "BAD_PROPOSAL_SYNTAX",
    [16] = "PAYLOAD_MALFORMED",
    [17] = "INVALID_KEY_INFORMATION",
    [18] = "INVALID_ID_INFORMATION",
    [19] = "INVALID_CERT_ENCODING",
    [20] = "INVALID_CERTIFICATE",
    [21] = "CERT_TYPE_UNSUPPORTED",
    [22] = "INVALID_CERT_AUTHORITY",
    [23] = "INVALID_HASH_INFORMATION",
    [24] = "AUTHENTICATION_FAILED",
    [25] = "INVALID_SIGNATURE",
    [26] = "ADDRESS_NOTIFICATION",
    [27] = "NOTIFY_SA_LIFETIME",
    [28] = "CERTIFICATE_UNAVAILABLE",
    [29] = "UNSUPPORTED_EXCHANGE_TYPE",
    [30] = "UNEQUAL_PAYLOAD_LENGTHS",
    [16384] = "CONNECTED",
    [24576] = "RESPONDER_LIFETIME",
    [24577] = "REPLAY_STATUS",
    [24578] = "INITIAL_CONTACT",
    [34430] = "KINKVPN_CAPABILITIES",
    [34431] = "KINKVPN_OBSERVED_ENDPOINT",
    [34432] = "KINKVPN_INNER_MTU",
    [34433] = "KINKVPN_USE_AGGFRAG",
    [34434] = "KINKVPN_PADDING",
    [34435] = "KINKVPN_CONFIGURATION",
    [34436] = "KINKVPN_MACHINE",
}
-- END TABLES

local HEADER = 16        -- RFC 4430 section 4
local GENERIC = 4        -- RFC 4430 section 4.2
local ACKREQ = 0x80
local MAX_PAYLOADS = 64  -- ours: a chain of empty payloads must end somewhere

local f = {
    marker     = ProtoField.bytes("kink4430.marker", "Non-ESP marker"),
    type       = ProtoField.uint8("kink4430.type", "Type", base.DEC, message_types),
    version    = ProtoField.uint8("kink4430.version", "Major version", base.DEC, nil, 0xf0),
    reserved   = ProtoField.uint8("kink4430.reserved", "RESRVED", base.DEC, nil, 0x0f),
    length     = ProtoField.uint16("kink4430.length", "Length"),
    doi        = ProtoField.uint32("kink4430.doi", "Domain of Interpretation", base.DEC, { [1] = "IPsec" }),
    xid        = ProtoField.uint32("kink4430.xid", "Transaction ID", base.HEX),
    next       = ProtoField.uint8("kink4430.next", "Next payload", base.DEC, payload_types),
    ackreq     = ProtoField.bool("kink4430.ackreq", "ACKREQ", 8, nil, ACKREQ),
    reserved2  = ProtoField.uint8("kink4430.reserved2", "RESERVED2", base.HEX, nil, 0x7f),
    cksum_len  = ProtoField.uint16("kink4430.cksum_length", "Checksum length"),
    cksum      = ProtoField.bytes("kink4430.cksum", "Checksum"),
    padding    = ProtoField.bytes("kink4430.padding", "Padding"),
    payload    = ProtoField.uint8("kink4430.payload", "Payload", base.DEC, payload_types),
    p_reserved = ProtoField.uint8("kink4430.payload.reserved", "RESERVED", base.HEX),
    p_length   = ProtoField.uint16("kink4430.payload.length", "Payload length"),
    epoch      = ProtoField.absolute_time("kink4430.epoch", "Epoch", base.UTC),
    principal  = ProtoField.string("kink4430.tgt_req.principal", "Principal"),
    ticket     = ProtoField.bytes("kink4430.tgt_rep.ticket", "Ticket"),
    error      = ProtoField.uint32("kink4430.error", "Error code", base.DEC, error_codes),
    encrypted  = ProtoField.bytes("kink4430.encrypted", "Encrypted payloads"),
    qm_version = ProtoField.string("kink4430.qm_version", "Quick Mode version"),
    qm_payload = ProtoField.uint8("kink4430.qm.payload", "Quick Mode payload", base.DEC, quick_mode_types),
    situation  = ProtoField.uint32("kink4430.qm.situation", "Situation", base.HEX, { [1] = "SIT_IDENTITY_ONLY" }),
    proposal   = ProtoField.uint8("kink4430.qm.proposal", "Proposal"),
    protocol   = ProtoField.uint8("kink4430.qm.protocol", "Protocol", base.DEC, protocols),
    spi        = ProtoField.bytes("kink4430.qm.spi", "SPI"),
    transform  = ProtoField.uint8("kink4430.qm.transform", "Transform"),
    esp_id     = ProtoField.uint8("kink4430.qm.transform.esp", "ESP transform", base.DEC, esp_transforms),
    ah_id      = ProtoField.uint8("kink4430.qm.transform.ah", "AH transform", base.DEC, ah_transforms),
    other_id   = ProtoField.uint8("kink4430.qm.transform.id", "Transform ID"),
    attribute  = ProtoField.uint16("kink4430.qm.attribute", "Attribute", base.DEC, sa_attributes, 0x7fff),
    value      = ProtoField.uint32("kink4430.qm.attribute.value", "Value"),
    life_type  = ProtoField.uint16("kink4430.qm.life_type", "Life type", base.DEC, life_types),
    group      = ProtoField.uint16("kink4430.qm.group", "Group", base.DEC, groups),
    mode       = ProtoField.uint16("kink4430.qm.mode", "Encapsulation mode", base.DEC, encapsulation_modes),
    auth       = ProtoField.uint16("kink4430.qm.auth", "Authentication algorithm", base.DEC, authentication_algorithms),
    octets     = ProtoField.bytes("kink4430.qm.attribute.octets", "Value"),
    id_type    = ProtoField.uint8("kink4430.qm.id.type", "ID type", base.DEC, id_types),
    id_proto   = ProtoField.uint8("kink4430.qm.id.protocol", "IP protocol"),
    id_port    = ProtoField.uint16("kink4430.qm.id.port", "Port"),
    id_data    = ProtoField.bytes("kink4430.qm.id.data", "Identification data"),
    nonce      = ProtoField.bytes("kink4430.qm.nonce", "Nonce"),
    public     = ProtoField.bytes("kink4430.qm.public", "Public value"),
    notify     = ProtoField.uint16("kink4430.qm.notify", "Notify type", base.DEC, notify_types),
    data       = ProtoField.bytes("kink4430.qm.data", "Data"),
    trailing   = ProtoField.bytes("kink4430.trailing", "Octets after Length"),
}
kink.fields = f

local e = {
    version  = ProtoExpert.new("kink4430.bad_version", "There is only version 1", expert.group.MALFORMED,
                               expert.severity.ERROR),
    length   = ProtoExpert.new("kink4430.bad_length", "Does not fit what is there", expert.group.MALFORMED,
                               expert.severity.ERROR),
    reserved = ProtoExpert.new("kink4430.bad_reserved", "Reserved bits are not zero", expert.group.PROTOCOL,
                               expert.severity.WARN),
    unknown  = ProtoExpert.new("kink4430.unknown", "A number without a name", expert.group.PROTOCOL,
                               expert.severity.WARN),
    trailing = ProtoExpert.new("kink4430.bad_trailing", "Octets after Length, ignored by receivers",
                               expert.group.PROTOCOL, expert.severity.NOTE),
}
kink.experts = e

-- By its port: it has no name by which scripts could find it.
local kerberos = DissectorTable.get("udp.port"):get_dissector(88)

local function is_zero(range)
    for i = 0, range:len() - 1 do
        if range(i, 1):uint() ~= 0 then return false end
    end
    return true
end

-- Walks a chain of payloads; calls each(type, item, tree, body range, tree). Returns where it ended.
local function walk(range, at, first, boundary, field, names, tree, each)
    local kind, count = first, 0
    while kind ~= 0 and count < MAX_PAYLOADS do
        local pad = (-at) % boundary
        if pad > 0 and at + pad <= range:len() then
            local item = tree:add(f.padding, range(at, pad))
            if not is_zero(range(at, pad)) then item:add_proto_expert_info(e.reserved, "Padding is not zero") end
        end
        at = at + pad
        if at + GENERIC > range:len() then
            tree:add_proto_expert_info(e.length, "No room for the next payload's header")
            return range:len()
        end
        local length = range(at + 2, 2):uint()
        local there = math.min(math.max(length, GENERIC), range:len() - at)
        local name = names[kind] or "unknown"
        local sub = tree:add(field, range(at, there), kind)
        sub:set_text(name .. ", " .. length .. " octets")
        if not names[kind] then sub:add_proto_expert_info(e.unknown, "Payload type " .. kind .. " is unknown") end
        sub:add(f.next, range(at, 1))
        local reserved = sub:add(f.p_reserved, range(at + 1, 1))
        if range(at + 1, 1):uint() ~= 0 then reserved:add_proto_expert_info(e.reserved) end
        local item = sub:add(f.p_length, range(at + 2, 2))
        if length ~= there then item:add_proto_expert_info(e.length) end
        if there > GENERIC then each(kind, range(at + GENERIC, there - GENERIC), sub) end
        if length ~= there then return range:len() end
        kind, at, count = range(at, 1):uint(), at + length, count + 1
    end
    return at
end

local named_values = { [1] = f.life_type, [3] = f.group, [4] = f.mode, [5] = f.auth } -- RFC 2407 section 4.5

local function attributes(range, tree)
    local at = 0
    while at + 4 <= range:len() do
        local kind, value = range(at, 2):uint(), range(at + 2, 2):uint()
        local short = kind >= 0x8000
        local size = short and 4 or math.min(4 + value, range:len() - at)
        local sub = tree:add(f.attribute, range(at, 2))
        if not sa_attributes[kind % 0x8000] then sub:add_proto_expert_info(e.unknown) end
        if short then
            sub:add(f.value, range(at + 2, 2))
            if named_values[kind % 0x8000] then sub:add(named_values[kind % 0x8000], range(at + 2, 2)) end
        elseif size > 4 and size <= 8 then
            sub:add(f.value, range(at + 4, size - 4))
        elseif size > 8 then
            sub:add(f.octets, range(at + 4, size - 4))
        end
        at = at + size
    end
end

local function proposals(range, tree)
    local names = { [2] = "Proposal", [3] = "Transform" }
    if range:len() == 0 then return end
    walk(range, 0, 2, 1, f.qm_payload, names, tree, function(_, body, sub)
        if body:len() < 4 then return end
        local protocol, spi_size = body(1, 1):uint(), body(2, 1):uint()
        sub:add(f.proposal, body(0, 1))
        sub:add(f.protocol, body(1, 1))
        if 4 + spi_size > body:len() then sub:add_proto_expert_info(e.length) return end
        if spi_size > 0 then sub:add(f.spi, body(4, spi_size)) end
        if 4 + spi_size == body:len() then return end
        local rest = body(4 + spi_size, body:len() - 4 - spi_size)
        walk(rest, 0, 3, 1, f.qm_payload, names, sub, function(_, inner, leaf)
            if inner:len() < 4 then return end
            leaf:add(f.transform, inner(0, 1))
            local field = ({ [2] = f.ah_id, [3] = f.esp_id })[protocol] or f.other_id
            leaf:add(field, inner(1, 1))
            if inner:len() > 4 then attributes(inner(4, inner:len() - 4), leaf) end
        end)
    end)
end

local function quick_mode(kind, body, tree)
    local size = body:len()
    if kind == 1 and size >= 8 then
        tree:add(f.doi, body(0, 4))
        tree:add(f.situation, body(4, 4))
        if size > 8 then proposals(body(8, size - 8), tree) end
    elseif kind == 4 then
        tree:add(f.public, body)
    elseif kind == 5 and size >= 4 then
        tree:add(f.id_type, body(0, 1))
        tree:add(f.id_proto, body(1, 1))
        tree:add(f.id_port, body(2, 2))
        if size > 4 then tree:add(f.id_data, body(4, size - 4)) end
    elseif kind == 10 then
        tree:add(f.nonce, body)
    elseif kind == 11 and size >= 8 then
        local spi_size = body(5, 1):uint()
        tree:add(f.doi, body(0, 4))
        tree:add(f.protocol, body(4, 1))
        tree:add(f.notify, body(6, 2))
        if 8 + spi_size > size then tree:add_proto_expert_info(e.length) return end
        if spi_size > 0 then tree:add(f.spi, body(8, spi_size)) end
        if size > 8 + spi_size then tree:add(f.data, body(8 + spi_size, size - 8 - spi_size)) end
    elseif kind == 12 and size >= 8 then
        local spi_size, at = body(5, 1):uint(), 8
        tree:add(f.doi, body(0, 4))
        tree:add(f.protocol, body(4, 1))
        while spi_size > 0 and at + spi_size <= size do
            tree:add(f.spi, body(at, spi_size))
            at = at + spi_size
        end
        if at ~= size then tree:add_proto_expert_info(e.length) end
    else
        tree:add(f.data, body)
    end
end

-- Kerberos in Kerberos' own dissector, which knows more of it than we do.
local function as_kerberos(body, pinfo, tree)
    if kerberos then pcall(kerberos.call, kerberos, body:tvb(), pinfo, tree) end
end

-- Returns what belongs into the info column.
local function payload(kind, body, tree, pinfo)
    local size = body:len()
    if (kind == 1 or kind == 2) and size >= 4 then
        tree:add(f.epoch, body(0, 4), NSTime.new(body(0, 4):uint(), 0))
        if size > 4 then as_kerberos(body(4, size - 4), pinfo, tree) end
    elseif kind == 3 then
        as_kerberos(body, pinfo, tree)
        return " KRB-ERROR"
    elseif kind == 4 then
        tree:add(f.principal, body)
    elseif kind == 5 then
        tree:add(f.ticket, body)
    elseif kind == 6 and size >= 4 then
        local version = body(1, 1):uint()
        tree:add(f.qm_version, body(1, 1), math.floor(version / 16) .. "." .. version % 16)
        if not is_zero(body(2, 2)) then tree:add_proto_expert_info(e.reserved) end
        if version == 0x10 and size > 4 then
            walk(body, 4, body(0, 1):uint(), 1, f.qm_payload, quick_mode_types, tree, quick_mode)
        end
    elseif kind == 7 then
        tree:add(f.encrypted, body)
    elseif kind == 8 and size >= 4 then
        local code = body(0, 4):uint()
        local item = tree:add(f.error, body(0, 4))
        if not error_codes[code] then item:add_proto_expert_info(e.unknown) end
        return " " .. (error_codes[code] or "error " .. code)
    end
    return ""
end

local function header(buffer, tree)
    local kind = tree:add(f.type, buffer(0, 1))
    if not message_types[buffer(0, 1):uint()] then kind:add_proto_expert_info(e.unknown) end
    local version = tree:add(f.version, buffer(1, 1))
    if buffer(1, 1):bitfield(0, 4) ~= 1 then version:add_proto_expert_info(e.version) end
    local reserved = tree:add(f.reserved, buffer(1, 1))
    if buffer(1, 1):bitfield(4, 4) ~= 0 then reserved:add_proto_expert_info(e.reserved) end
    local length = tree:add(f.length, buffer(2, 2))
    if buffer(2, 2):uint() < HEADER or buffer(2, 2):uint() > buffer:reported_len() then
        length:add_proto_expert_info(e.length)
    end
    local doi = tree:add(f.doi, buffer(4, 4))
    if buffer(4, 4):uint() ~= 1 then doi:add_proto_expert_info(e.unknown) end
    tree:add(f.xid, buffer(8, 4))
    tree:add(f.next, buffer(12, 1))
    tree:add(f.ackreq, buffer(13, 1))
    local reserved2 = tree:add(f.reserved2, buffer(13, 1))
    if buffer(13, 1):bitfield(1, 7) ~= 0 then reserved2:add_proto_expert_info(e.reserved) end
    return tree:add(f.cksum_len, buffer(14, 2))
end

function kink.dissector(buffer, pinfo, root)
    if buffer:len() < HEADER then return 0 end
    local kind, length, cksum = buffer(0, 1):uint(), buffer(2, 2):uint(), buffer(14, 2):uint()
    local name = message_types[kind] or ("type " .. kind)
    local info = string.format("%s XID 0x%08x", name, buffer(8, 4):uint())
    if buffer(13, 1):uint() >= ACKREQ then info = info .. " ACKREQ" end
    local tree = root:add(kink, buffer(), string.format("KINK %s, XID 0x%08x", name, buffer(8, 4):uint()))
    local cksum_len = header(buffer, tree)
    local ends = math.max(HEADER, math.min(length, buffer:len()))
    local inside = ends - cksum
    if inside < HEADER then
        cksum_len:add_proto_expert_info(e.length)
        inside = ends
    elseif cksum > 0 then
        tree:add(f.cksum, buffer(inside, cksum))
    end
    local at = walk(buffer(0, inside), HEADER, buffer(12, 1):uint(), 4, f.payload, payload_types, tree,
        function(type, body, sub) info = info .. payload(type, body, sub, pinfo) end)
    pinfo.cols.protocol = "KINK" -- now, for Kerberos writes its own there
    pinfo.cols.info = info
    if at < inside then
        local item = tree:add(f.padding, buffer(at, inside - at))
        if not is_zero(buffer(at, inside - at)) then item:add_proto_expert_info(e.reserved, "Padding is not zero") end
    end
    if buffer:len() > ends then
        tree:add(f.trailing, buffer(ends, buffer:len() - ends)):add_proto_expert_info(e.trailing)
    end
    return buffer:len()
end

DissectorTable.get("udp.port"):add(910, kink)

-- Port 4500 (RFC 3948): ours are datagrams behind the marker of which two of version, Length and DOI are KINK's, as IKE
-- begins with eight random octets; whatever had the port before keeps the rest.
local udp_ports = DissectorTable.get("udp.port")
local before = udp_ports:get_dissector(4500)
local nat_t = Proto("kink4430_natt", "KINK behind the non-ESP marker (RFC 4430, RFC 3948)")

local function resembles_kink(buffer)
    if buffer:len() < 4 + HEADER or buffer(0, 4):uint() ~= 0 then return false end
    local signs = 0
    if buffer(5, 1):bitfield(0, 4) == 1 then signs = signs + 1 end
    if buffer(6, 2):uint() == buffer:reported_len() - 4 then signs = signs + 1 end
    if buffer(8, 4):uint() == 1 then signs = signs + 1 end
    return signs >= 2
end

function nat_t.dissector(buffer, pinfo, root)
    if resembles_kink(buffer) then
        root:add(f.marker, buffer(0, 4))
        return 4 + kink.dissector(buffer(4):tvb(), pinfo, root)
    end
    if before and not pcall(before.call, before, buffer, pinfo, root) then
        root:add_proto_expert_info(e.length) -- without pcall a broken IKE message would be called an error of this script
    end
    return buffer:len()
end

udp_ports:add(4500, nat_t)
