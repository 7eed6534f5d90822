%% An MME on OTP's diameter application: it sends the ECRs that its standard input asks for, and tells what came back.
%%
%% Input, a line for each request: IMEI, or "IMEI IMSI"; at the end of the input it disconnects and ends. Output, lines:
%%   S13 ready PORT                     started; PORT: where it listens, 0 where it connects
%%   S13 open HOST, S13 down HOST       a connection to that peer may be used, or may not any more
%%   S13 watchdog FROM TO               its watchdog's state (RFC 3539)
%%   S13 answer IMEI CODE STATUS HOST   CODE: Result-Code, or Experimental-Result-Code; STATUS: Equipment-Status; HOST:
%%                                      Origin-Host; "-" where the answer has none
%%   S13 errors IMEI ERRORS             what it finds wrong with an answer
%% Arguments: its Origin-Host, the realm to ask, "connect" or "listen", the port, Tw in milliseconds;
%% then "none", or "port" (TLS before the CER) or "inband" (TLS after it), with the files of its certificate, its key and
%% the authority that it trusts, and the name that the other end's certificate must have.
-module(s13_mme).
-export([main/1]).
-export([peer_up/3, peer_down/3, pick_peer/4, prepare_request/3, prepare_retransmit/3, handle_answer/4, handle_error/4,
         handle_request/3]).

%% As in diameter/include/diameter.hrl, which Debian's package leaves out.
-record(diameter_packet, {header, avps, msg, bin, errors = [], transport_data}).
-record(diameter_caps, {origin_host, origin_realm, host_ip_address = [], vendor_id, product_name, origin_state_id = [],
                        supported_vendor_id = [], auth_application_id = [], inband_security_id = [],
                        acct_application_id = [], vendor_specific_application_id = [], firmware_revision = [],
                        avp = []}).

-define(LOOPBACK, {127, 0, 0, 1}).

main([Host, Realm, Kind, Port, Tw | Tls]) ->
    {ok, _} = application:ensure_all_started(ssl),
    ok = diameter:start(),
    {_, [_ | Own]} = lists:splitwith(fun(C) -> C =/= $. end, Host),
    Service = [{'Origin-Host', Host}, {'Origin-Realm', Own}, {'Vendor-Id', 0}, {'Product-Name', "otp"},
               {'Host-IP-Address', [?LOOPBACK]}, {'Supported-Vendor-Id', [10415]},
               {'Vendor-Specific-Application-Id',
                [{'diameter_base_Vendor-Specific-Application-Id', 10415, [16777252], []}]},
               {'Inband-Security-Id', inband(Tls)}, {string_decode, false}, {decode_format, map},
               {application, [{alias, base}, {dictionary, diameter_gen_base_rfc6733}, {module, ?MODULE}]},
               {application, [{alias, s13}, {dictionary, s13}, {module, ?MODULE}, {answer_errors, callback}]}],
    ok = diameter:start_service(?MODULE, Service),
    Self = self(),
    Teller = spawn_link(fun() -> true = diameter:subscribe(?MODULE), Self ! subscribed, tell_events() end),
    receive subscribed -> ok end,
    Common = [{transport_module, diameter_tcp}, {watchdog_timer, list_to_integer(Tw)}, {connect_timer, 1000}],
    {ok, _} = diameter:add_transport(?MODULE, transport(Kind, list_to_integer(Port), ssl(Tls), Common)),
    tell("ready ~b", [listening(Kind, Port)]),
    ask(Realm),
    unlink(Teller),
    ok = diameter:stop_service(?MODULE),
    ended(100),
    tell("ended", []),
    halt(0).

transport("connect", Port, Tls, Common) ->
    {connect, [{transport_config, [{raddr, ?LOOPBACK}, {rport, Port}, {ip, ?LOOPBACK} | Tls]} | Common]};
transport("listen", Port, Tls, Common) ->
    {listen, [{transport_config, [{ip, ?LOOPBACK}, {port, Port}, {reuseaddr, true} | Tls]} | Common]}.

inband(["inband" | _]) -> [1];
inband(_) -> [0].

ssl(["none"]) -> [];
ssl(["port" | Files]) -> [{ssl_options, true} | files(Files)];
ssl(["inband" | Files]) -> [{ssl_options, files(Files)}].

files([Certificate, Key, Authority, Name]) ->
    [{certfile, Certificate}, {keyfile, Key}, {cacertfile, Authority}, {verify, verify_peer},
     {server_name_indication, Name}].

%% A listener is there as soon as the transport is.
listening("connect", _) -> 0;
listening("listen", Port) -> list_to_integer(Port).

%% Until the peers have answered the DPR and the connections are closed.
ended(0) -> tell("still connected ~0p", [diameter_tcp:ports()]);
ended(Tries) ->
    case diameter_tcp:ports() of
        [] -> ok;
        _ -> timer:sleep(50), ended(Tries - 1)
    end.

ask(Realm) ->
    case io:get_line("") of
        eof -> ok;
        Line ->
            case string:lexemes(Line, " \n") of
                [] -> ok;
                [Imei | Imsi] -> ask(Realm, Imei, Imsi)
            end,
            ask(Realm)
    end.

ask(Realm, Imei, Imsi) ->
    Ecr = #{'Session-Id' => diameter:session_id("mme"),
            'Vendor-Specific-Application-Id' => [#{'Vendor-Id' => 10415, 'Auth-Application-Id' => [16777252]}],
            'Auth-Session-State' => 1, 'Destination-Realm' => Realm, 'User-Name' => Imsi,
            'Terminal-Information' => #{'IMEI' => [Imei], 'Software-Version' => ["01"]}},
    case diameter:call(?MODULE, s13, ['ECR' | Ecr], [{timeout, 10000}]) of
        {answer, Answer, Errors} ->
            Errors =:= [] orelse tell("errors ~s ~0p", [Imei, Errors]),
            tell("answer ~s ~s ~s ~s", [Imei, code(Answer), value('Equipment-Status', Answer), value('Origin-Host', Answer)]);
        Other ->
            tell("answer ~s - - -", [Imei]),
            tell("failed ~0p", [Other])
    end.

code(#{'Experimental-Result' := Result}) -> value('Experimental-Result-Code', one(Result));
code(Answer) -> value('Result-Code', Answer).

value(Name, Answer) ->
    case one(maps:get(Name, Answer, [])) of
        [] -> "-";
        Number when is_integer(Number) -> integer_to_list(Number);
        Text -> Text
    end.

one([Value]) -> Value;
one(Value) -> Value.

tell(Format, Values) -> io:format("S13 " ++ Format ++ "~n", Values).

tell_events() ->
    receive
        {diameter_event, _, Event} when element(1, Event) =:= up; element(1, Event) =:= down ->
            {_, #diameter_caps{origin_host = {_, Host}}} = element(3, Event),
            tell("~s ~s", [case element(1, Event) of up -> "open"; down -> "down" end, Host]);
        {diameter_event, _, {watchdog, _, _, {From, To}, _}} -> tell("watchdog ~s ~s", [From, To]);
        {diameter_event, _, Event} -> tell("event ~0p", [Event])
    end,
    tell_events().

peer_up(_, _, State) -> State.
peer_down(_, _, State) -> State.
pick_peer([Peer | _], _, _, _) -> {ok, Peer};
pick_peer([], _, _, _) -> false.

prepare_request(#diameter_packet{msg = [Name | Ecr]}, _,
                {_, #diameter_caps{origin_host = {Host, _}, origin_realm = {Realm, _}}}) ->
    {send, [Name | Ecr#{'Origin-Host' => Host, 'Origin-Realm' => Realm}]}.

prepare_retransmit(Packet, Name, Peer) -> prepare_request(Packet, Name, Peer).

handle_answer(#diameter_packet{msg = [_ | Answer], errors = Errors}, _, _, _) -> {answer, Answer, Errors}.
handle_error(Reason, _, _, _) -> {error, Reason}.
handle_request(_, _, _) -> {protocol_error, 3001}.
