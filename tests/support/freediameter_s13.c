/* An MME as an extension of freeDiameter: it sends the ECRs that its standard input asks for, and tells what came back.
 *
 * Input, a line for each request: IMEI, or "IMEI IMSI". Output, lines that begin with "S13 ":
 *   S13 open HOST                  a connection to that peer is open
 *   S13 down HOST REASON           it is not any more, or could not be opened
 *   S13 answer IMEI CODE STATUS HOST   CODE: Result-Code, or Experimental-Result-Code; STATUS: Equipment-Status; HOST:
 *                                  Origin-Host; "-" where the answer has none
 * The argument of the extension, written where its configuration file would be, is the realm to ask. */
#include <freeDiameter/extension.h>
#include <stdio.h>

enum { VENDOR_3GPP = 10415, APPLICATION_S13 = 16777252, ME_IDENTITY_CHECK = 324 };
enum { TERMINAL_INFORMATION = 1401, IMEI = 1402, SOFTWARE_VERSION = 1403, EQUIPMENT_STATUS = 1445 };

static const char *realm;
static struct dict_object *application, *request_model;
static struct dict_object *terminal_information, *imei_model, *software_version;
static struct dict_object *destination_realm, *auth_session_state, *user_name;
static struct dict_object *vendor_specific_application_id, *vendor_id, *auth_application_id;
static pthread_t reader;
static pthread_mutex_t printing = PTHREAD_MUTEX_INITIALIZER;

static void tell(const char *format, ...)
{
	va_list arguments;

	pthread_mutex_lock(&printing);
	va_start(arguments, format);
	fputs("S13 ", stdout);
	vprintf(format, arguments);
	va_end(arguments);
	putchar('\n');
	fflush(stdout);
	pthread_mutex_unlock(&printing);
}

/* A 3GPP AVP: as a dictionary has it that was loaded before, or our own definition. */
static struct dict_object *avp_of_3gpp(int code, char *name, enum dict_avp_basetype type)
{
	struct dict_avp_request wanted = { VENDOR_3GPP, code, NULL };
	struct dict_avp_data own = { code, VENDOR_3GPP, name, AVP_FLAG_VENDOR | AVP_FLAG_MANDATORY,
				     AVP_FLAG_VENDOR | AVP_FLAG_MANDATORY, type };
	struct dict_object *found = NULL;

	if (fd_dict_search(fd_g_config->cnf_dict, DICT_AVP, AVP_BY_CODE_AND_VENDOR, &wanted, &found, ENOENT) || !found)
		CHECK_FCT_DO(fd_dict_new(fd_g_config->cnf_dict, DICT_AVP, &own, NULL, &found), return NULL);
	return found;
}

static struct dict_object *base_avp(const char *name)
{
	struct dict_object *found = NULL;

	CHECK_FCT_DO(fd_dict_search(fd_g_config->cnf_dict, DICT_AVP, AVP_BY_NAME, name, &found, ENOENT), return NULL);
	return found;
}

static struct avp *group(msg_or_avp *parent, struct dict_object *model)
{
	struct avp *avp = NULL;

	CHECK_FCT_DO(fd_msg_avp_new(model, 0, &avp), return NULL);
	CHECK_FCT_DO(fd_msg_avp_add(parent, MSG_BRW_LAST_CHILD, avp), return NULL);
	return avp;
}

static void number(msg_or_avp *parent, struct dict_object *model, uint32_t value)
{
	union avp_value content = { .u32 = value };
	struct avp *avp = group(parent, model);

	if (avp)
		CHECK_FCT_DO(fd_msg_avp_setvalue(avp, &content), );
}

static void text(msg_or_avp *parent, struct dict_object *model, const char *value)
{
	union avp_value content;
	struct avp *avp = group(parent, model);

	content.os.data = (uint8_t *)value;
	content.os.len = strlen(value);
	if (avp)
		CHECK_FCT_DO(fd_msg_avp_setvalue(avp, &content), );
}

/* The first AVP of this code and vendor under a message or a group. */
static struct avp_hdr *find(msg_or_avp *parent, uint32_t code, uint32_t vendor, struct avp **where)
{
	struct avp *avp = NULL;
	struct avp_hdr *header;

	CHECK_FCT_DO(fd_msg_browse(parent, MSG_BRW_FIRST_CHILD, &avp, NULL), return NULL);
	while (avp) {
		CHECK_FCT_DO(fd_msg_avp_hdr(avp, &header), return NULL);
		if (header->avp_code == code && header->avp_vendor == vendor) {
			if (where)
				*where = avp;
			return header;
		}
		CHECK_FCT_DO(fd_msg_browse(avp, MSG_BRW_NEXT, &avp, NULL), return NULL);
	}
	return NULL;
}

static void answered(void *data, struct msg **message)
{
	char code[16] = "-", status[16] = "-", host[256] = "-";
	struct avp_hdr *header;
	struct avp *result = NULL;

	header = find(*message, 268, 0, NULL);
	if (!header && find(*message, 297, 0, &result))
		header = find(result, 298, 0, NULL);
	if (header && header->avp_value)
		snprintf(code, sizeof code, "%u", header->avp_value->u32);
	header = find(*message, EQUIPMENT_STATUS, VENDOR_3GPP, NULL);
	if (header && header->avp_value)
		snprintf(status, sizeof status, "%d", header->avp_value->i32);
	header = find(*message, 264, 0, NULL);
	if (header && header->avp_value)
		snprintf(host, sizeof host, "%.*s", (int)header->avp_value->os.len, header->avp_value->os.data);
	tell("answer %s %s %s %s", (char *)data, code, status, host);
	free(data);
	CHECK_FCT_DO(fd_msg_free(*message), );
	*message = NULL;
}

static int ask(const char *imei, const char *imsi)
{
	struct msg *message = NULL;
	struct avp *avp;
	char *kept = strdup(imei);

	CHECK_MALLOC(kept);
	CHECK_FCT(fd_msg_new(request_model, MSGFL_ALLOC_ETEID, &message));
	CHECK_FCT(fd_msg_new_session(message, NULL, 0));
	avp = group(message, vendor_specific_application_id);
	number(avp, vendor_id, VENDOR_3GPP);
	number(avp, auth_application_id, APPLICATION_S13);
	number(message, auth_session_state, 1);
	CHECK_FCT(fd_msg_add_origin(message, 0));
	text(message, destination_realm, realm);
	avp = group(message, terminal_information);
	text(avp, imei_model, imei);
	text(avp, software_version, "01");
	if (*imsi)
		text(message, user_name, imsi);
	CHECK_FCT(fd_msg_send(&message, answered, kept));
	return 0;
}

static void *read_requests(void *unused)
{
	char line[256], imei[100], imsi[100];

	(void)unused;
	if (fd_core_waitstartcomplete())
		return NULL;
	while (fgets(line, sizeof line, stdin)) {
		*imei = *imsi = 0;
		if (sscanf(line, "%99s %99s", imei, imsi) >= 1)
			CHECK_FCT_DO(ask(imei, imsi), tell("failed %s", imei));
	}
	return NULL;
}

static void peer_changed(enum fd_hook_type type, struct msg *message, struct peer_hdr *peer, void *other,
			 struct fd_hook_permsgdata *pmd, void *data)
{
	(void)message, (void)pmd, (void)data;
	if (type == HOOK_PEER_CONNECT_SUCCESS)
		tell("open %s", peer->info.pi_diamid);
	else
		tell("down %s %s", peer ? peer->info.pi_diamid : "-", other ? (char *)other : "-");
}

static int start(char *argument)
{
	struct dict_object *vendor = NULL, *answer_model = NULL;
	struct dict_application_data s13 = { APPLICATION_S13, "S13" };
	struct dict_cmd_data ecr = { ME_IDENTITY_CHECK, "ME-Identity-Check-Request",
				     CMD_FLAG_REQUEST | CMD_FLAG_PROXIABLE | CMD_FLAG_ERROR,
				     CMD_FLAG_REQUEST | CMD_FLAG_PROXIABLE };
	struct dict_cmd_data eca = { ME_IDENTITY_CHECK, "ME-Identity-Check-Answer",
				     CMD_FLAG_REQUEST | CMD_FLAG_PROXIABLE, CMD_FLAG_PROXIABLE };
	vendor_id_t number_of_3gpp = VENDOR_3GPP;
	struct fd_hook_hdl *hook;

	realm = argument;
	CHECK_FCT(fd_dict_search(fd_g_config->cnf_dict, DICT_VENDOR, VENDOR_BY_ID, &number_of_3gpp, &vendor, ENOENT));
	CHECK_FCT(fd_dict_new(fd_g_config->cnf_dict, DICT_APPLICATION, &s13, vendor, &application));
	CHECK_FCT(fd_dict_new(fd_g_config->cnf_dict, DICT_COMMAND, &ecr, application, &request_model));
	CHECK_FCT(fd_dict_new(fd_g_config->cnf_dict, DICT_COMMAND, &eca, application, &answer_model));
	terminal_information = avp_of_3gpp(TERMINAL_INFORMATION, "Terminal-Information", AVP_TYPE_GROUPED);
	imei_model = avp_of_3gpp(IMEI, "IMEI", AVP_TYPE_OCTETSTRING);
	software_version = avp_of_3gpp(SOFTWARE_VERSION, "Software-Version", AVP_TYPE_OCTETSTRING);
	if (!avp_of_3gpp(EQUIPMENT_STATUS, "Equipment-Status", AVP_TYPE_INTEGER32))
		return EINVAL;
	destination_realm = base_avp("Destination-Realm");
	auth_session_state = base_avp("Auth-Session-State");
	user_name = base_avp("User-Name");
	vendor_specific_application_id = base_avp("Vendor-Specific-Application-Id");
	vendor_id = base_avp("Vendor-Id");
	auth_application_id = base_avp("Auth-Application-Id");
	CHECK_FCT(fd_disp_app_support(application, vendor, 1, 0));
	CHECK_FCT(fd_hook_register(HOOK_MASK(HOOK_PEER_CONNECT_SUCCESS, HOOK_PEER_CONNECT_FAILED), peer_changed, NULL,
				   NULL, &hook));
	CHECK_POSIX(pthread_create(&reader, NULL, read_requests, NULL));
	return 0;
}

/* The framework calls this name at the end. */
void fd_ext_fini(void)
{
	CHECK_FCT_DO(fd_thr_term(&reader), );
}

EXTENSION_ENTRY("freediameter_s13", start, "dict_dcca_3gpp");
